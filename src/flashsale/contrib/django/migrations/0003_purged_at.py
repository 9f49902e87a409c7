from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("flashsale", "0002_settled_at_and_requests")]

    operations = [
        migrations.AddField(
            model_name="sale",
            name="purged_at",
            field=models.FloatField(editable=False, null=True),
        ),
    ]
