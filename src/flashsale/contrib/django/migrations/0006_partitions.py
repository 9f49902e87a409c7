from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("flashsale", "0005_trail")]

    operations = [
        migrations.AddField(
            model_name="sale",
            name="partitions",
            field=models.IntegerField(editable=False, null=True),
        ),
    ]
